"""What stops training, in the user's words. Knows exit statuses; knows nothing of torch."""


class TrainError(Exception):
    """The model, the data or the run folder is at fault; `fixes` say what would help."""

    status = 1

    def __init__(self, message: str, *fixes: str) -> None:
        super().__init__("\n  help: ".join([message, *fixes]))
        self.message = message
        self.fixes = fixes


class UsageError(TrainError):
    """The command asks for something that there is not, or that would do harm."""

    status = 2
