"""Expected failures of the workflow: told as one message, without a traceback."""


class WorkflowError(Exception):
    """The message says what happened and what to do next."""
