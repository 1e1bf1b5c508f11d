"""Expected failures of the workflow, reported as one message without a traceback."""


class WorkflowError(Exception):
    """An expected failure. The message says what happened and what to do next."""
