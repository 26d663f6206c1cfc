"""The two kinds of failure: one that another try may cure and one that it cannot.

Every client in this package raises one of these two, with one sentence that says what happened and what to do,
and without secrets. Nothing else decides whether a step is retried.
"""


class PipelineError(Exception):
    """Base of both kinds; its text is one clear sentence for a person."""


class PermanentError(PipelineError):
    """Trying again gives the same answer: wrong configuration, refused credentials, unknown symbol."""


class TransientError(PipelineError):
    """Trying again may succeed: time-outs, throttling, server errors, an endpoint that is away."""
