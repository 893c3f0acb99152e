"""What a person can do something with, for the errors of DynamoDB and boto3."""

from .exceptions import ColdMisconfigured, ColdUnavailable, FailoverError

# What DynamoDB or boto3 calls it: what to say of it.
_REASONS = {
    "AccessDeniedException": "these AWS credentials lack the permission",
    "ConnectTimeoutError": "cannot be reached",
    "CredentialRetrievalError": "the AWS credentials cannot be retrieved",
    "EndpointConnectionError": "cannot be reached",
    "ExpiredTokenException": "the AWS credentials have expired",
    "NoCredentialsError": "no AWS credentials found",
    "ParamValidationError": "this boto3 does not know all that is asked for: install a newer one",
    "PartialCredentialsError": "the AWS credentials are incomplete",
    "ReadTimeoutError": "does not answer",
    "ResourceNotFoundException": "there is no such table: run createtable_dynamo",
    "UnknownOperationException": "this server does not know what is asked for",
    "UnrecognizedClientException": "AWS does not know these credentials",
    "not ready yet": "the AWS credentials are still being looked up",
}


def explain(error: FailoverError) -> str:
    """Return what a person can do something with."""
    text = str(error)
    operation, _, code = text.partition(": ")
    return f"{_REASONS[code]} ({operation}: {code})" if code in _REASONS else text


def explain_cause(error: FailoverError) -> str:
    """Return the same of what the error came from: what the last region that was asked has said."""
    while isinstance(error.__cause__, FailoverError):
        error = error.__cause__
    return explain(error)


def is_denied(error: ColdUnavailable) -> bool:
    """Tell whether these credentials lack the permission, and nothing else is wrong."""
    return isinstance(error, ColdMisconfigured) and code_of(error) == "AccessDeniedException"


def code_of(error: ColdUnavailable) -> str:
    """Return what DynamoDB or boto3 calls it, or what else was said."""
    return str(error).rpartition(": ")[2]
