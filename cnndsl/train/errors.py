"""What stops training, in the user's words. Knows exit statuses; knows nothing of torch."""

from cnndsl.diagnostics.helpful import HelpfulError


class TrainError(HelpfulError):
    """The model, the data or the run folder is at fault; `fixes` say what would help."""

    status = 1


class UsageError(TrainError):
    """The command asks for something that there is not, or that would do harm."""

    status = 2
