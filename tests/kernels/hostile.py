class HostileInterpreter:
    def __enter__(self):
        return self

    def __exit__(self, *a):
        pass
