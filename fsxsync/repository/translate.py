"""The one place where botocore's exceptions become ours (errors.py)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from fsxsync.errors import (
    AccessDenied,
    BadCredentials,
    BadInput,
    BucketMissing,
    EndpointUnreachable,
    FsxSyncError,
    KeyRefused,
    ObjectArchived,
    ObjectChanged,
    ObjectEncrypted,
    ObjectLocked,
    ObjectMissing,
    ObjectTooLarge,
    OptionRefused,
    RepositoryError,
    Throttled,
    TypeClash,
)
from fsxsync.telemetry.log import redact

_BY_CODE: dict[str, type[RepositoryError]] = {
    **dict.fromkeys(
        ("AccessDenied", "AllAccessDisabled", "AccountProblem", "InvalidPayer", "KMS.AccessDeniedException"),
        AccessDenied,
    ),
    **dict.fromkeys(
        (
            "InvalidAccessKeyId",
            "SignatureDoesNotMatch",
            "ExpiredToken",
            "InvalidToken",
            "TokenRefreshRequired",
            "InvalidClientTokenId",
            "UnrecognizedClientException",
            "ExpiredTokenException",
            "MissingAuthenticationToken",
            "AuthorizationHeaderMalformed",
            "AuthFailure",
            "NotSignedUp",
            "RequestTimeTooSkewed",
        ),
        BadCredentials,
    ),
    **dict.fromkeys(("NoSuchBucket", "PermanentRedirect", "InvalidBucketName"), BucketMissing),
    **dict.fromkeys(("NoSuchKey", "NoSuchVersion"), ObjectMissing),
    **dict.fromkeys(
        ("PreconditionFailed", "ConditionalRequestConflict", "InvalidRange", "RequestedRangeNotSatisfiable"),
        ObjectChanged,
    ),
    **dict.fromkeys(("InvalidObjectState", "ObjectNotInActiveTierError", "RestoreAlreadyInProgress"), ObjectArchived),
    **dict.fromkeys(
        (
            "SlowDown",
            "SlowDownRead",
            "SlowDownWrite",
            "Throttling",
            "ThrottlingException",
            "RequestThrottled",
            "RequestLimitExceeded",
            "TooManyRequests",
            "ServiceUnavailable",
            "OperationAborted",
            "RequestTimeout",
            # bytes damaged on their way: they are sent again
            "BadDigest",
            "InvalidDigest",
            "XAmzContentChecksumMismatch",
        ),
        Throttled,
    ),
    **dict.fromkeys(("ObjectLocked", "XMinioObjectLocked"), ObjectLocked),
    **dict.fromkeys(
        (
            "AccessControlListNotSupported",
            "InvalidStorageClass",
            "KMS.NotFoundException",
            "KMS.DisabledException",
            "KMS.InvalidKeyUsageException",
            "KMS.KMSInvalidStateException",
        ),
        OptionRefused,
    ),
    # versitygw keeps files: an object can't lie below another one (SERVERS.md)
    **dict.fromkeys(("ObjectParentIsFile", "ExistingObjectIsDirectory", "XMinioParentIsObject"), TypeClash),
    **dict.fromkeys(
        (
            "KeyTooLongError",
            "KeyTooLong",
            "InvalidURI",
            "InvalidArgument",
            "InvalidRequest",
            "MetadataTooLarge",
            "MethodNotAllowed",
            "NotImplemented",
            "XMinioInvalidObjectName",
            "XMinioInvalidResourceName",
        ),
        KeyRefused,
    ),
    "EntityTooLarge": ObjectTooLarge,
}

# Where the answer has no body (HEAD), botocore gives the status as the code.
_BY_STATUS: dict[int, type[RepositoryError]] = {
    301: BucketMissing,
    400: KeyRefused,
    401: BadCredentials,
    403: AccessDenied,
    404: ObjectMissing,
    405: KeyRefused,
    409: Throttled,
    412: ObjectChanged,
    416: ObjectChanged,
    429: Throttled,
    501: KeyRefused,
    503: Throttled,
}

_ADVICE = {
    "RequestTimeTooSkewed": "set this machine's clock",
    "InvalidPayer": "the bucket's owner has to enable requester pays, or grant the access",
    "PermanentRedirect": "name the bucket's own --region or --endpoint-url",
    "AuthorizationHeaderMalformed": "name the bucket's own --region",
    "InvalidStorageClass": "name another --storage-class",
    "AccessControlListNotSupported": "the bucket has ACLs off (Object Ownership): associate without --acl; "
    "its owner owns all objects anyway",
    **dict.fromkeys(
        (
            "KMS.NotFoundException",
            "KMS.DisabledException",
            "KMS.InvalidKeyUsageException",
            "KMS.KMSInvalidStateException",
        ),
        "have the key enabled, or name another one of the bucket's region for new objects: --sse aws:kms:KEY",
    ),
}

_CREDENTIALS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.ProfileNotFound,
    boto.TokenRetrievalError,
    boto.SSOError,
    boto.NoAuthTokenError,
    boto.LoginError,
    boto.RefreshWithMFAUnsupportedError,
    boto.ConfigParseError,
    boto.InvalidConfigError,
)
_NETWORK = (boto.HTTPClientError, boto.ConnectionError, boto.IncompleteReadError)


_REDIRECTED = "name the address that it redirects to as --endpoint-url, perhaps with https instead of http"


class NonsenseError(Exception):
    """An answer that lacks, or garbles, what every store says: `translated` makes a RepositoryError of it."""


def said(answer: object, *names: str) -> str:
    """The text that stands in an answer under ``names``, one below the other. For use within `translated`.

    Raises:
        NonsenseError: there is none.
    """
    for name in names:
        answer = answer.get(name) if isinstance(answer, Mapping) else None
    if not isinstance(answer, str) or not answer:
        raise NonsenseError(f"it tells no {names[-1]}")
    return answer


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Raise our errors for botocore's. ``what`` names the operation and its object: ``upload to s3://b/k``."""
    try:
        yield
    except RecursionError as error:
        # To a redirect botocore answers with a question for the bucket's region, which is redirected as well.
        raise EndpointUnreachable(what, "the server redirects every request", advice=_REDIRECTED) from error
    except (boto.ClientError, boto.BotoCoreError) as error:
        raise translate(error, what) from error
    except NonsenseError as error:
        raise RepositoryError(one_line(what), f"the store's answer makes no sense: {one_line(str(error))}") from error
    except ResponseParserError as error:
        why = "the answer is none of S3's: is the endpoint right?"
        raise EndpointUnreachable(one_line(what), why) from error


def translate(error: boto.ClientError | boto.BotoCoreError, what: str) -> FsxSyncError:
    """Our error for one of botocore's."""
    what = one_line(what)
    if isinstance(error, boto.ClientError):
        return _of_answer(error, what)
    why = redact(one_line(str(error)))
    if isinstance(error, _CREDENTIALS):
        return BadCredentials(what, why)
    if isinstance(error, _NETWORK):
        return EndpointUnreachable(what, why)
    if isinstance(error, (boto.ParamValidationError, boto.UnsupportedS3ArnError)):
        return KeyRefused(what, why)
    if isinstance(error, (boto.InvalidRegionError, boto.UnknownEndpointError, boto.EndpointProviderError)):
        return BadInput(what, why, advice="check --region and --endpoint-url")
    return RepositoryError(what, why)


def _of_answer(error: boto.ClientError, what: str) -> RepositoryError:
    code, status = code_of(error), status_of(error)
    cls = _BY_CODE.get(code) or _BY_STATUS.get(status)
    if cls is None:
        cls = Throttled if status >= 500 else RepositoryError
    message = one_line(str(error.response.get("Error", {}).get("Message", ""))).rstrip(".")
    if cls in _MAY_SAY_MORE:
        cls = _said_in_words(cls, message)
    why = f"{status or code} from the store" if code == str(status) else f"{code} ({status})"
    if message and code != str(status):
        why = f"{why}, {message}"
    # What a store says goes into the catalog, the event log and every answer: some hand the signed request back.
    return cls(what, redact(one_line(why)), advice=_ADVICE.get(code))


_MAY_SAY_MORE = (AccessDenied, KeyRefused)


def _said_in_words(cls: type[RepositoryError], message: str) -> type[RepositoryError]:
    """What only the message tells: AWS has no code of its own for Object Lock (AccessDenied) and SSE-C
    (InvalidRequest), nor has versitygw for WORM (InvalidRequest)."""
    words = message.lower()
    if "object lock" in words or "worm protected" in words or "legal hold" in words:
        return ObjectLocked
    if "server side encryption" in words or "sse-c" in words:
        return ObjectEncrypted
    return cls


def code_of(error: boto.ClientError) -> str:
    """S3's code, or the HTTP status as text where the answer had no body (HEAD)."""
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: boto.ClientError) -> int:
    """The HTTP status; 0 if there is none."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def one_line(text: str) -> str:
    """Names come from outside: nothing in them may start a line of its own or move a terminal's cursor."""
    return text if text.isprintable() else "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
