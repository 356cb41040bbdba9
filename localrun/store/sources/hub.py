"""The Hugging Face Hub: what a repository holds, and where a file's bytes are.

The only importer of huggingface_hub, which reads its settings from the environment when it is first
imported: call `config.prepare_hub_environment` before importing this module. Its errors become ours
here. Bytes are fetched by `transfer`, because the library neither resumes nor verifies them.
"""

import json
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx2
from huggingface_hub import (
    HfApi,
    constants,
    get_hf_file_metadata,  # pyright: ignore[reportUnknownVariableType]  # a bare dict in it
    get_token,
    hf_hub_url,
)
from huggingface_hub.errors import (
    DisabledRepoError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from localrun import __version__
from localrun.errors import (
    AccessDenied,
    BrokenTransfer,
    Offline,
    PullFailed,
    RateLimited,
    SourceMissing,
)
from localrun.gguf import ByteReader
from localrun.store.blobs import Blobs
from localrun.store.flight import Watcher
from localrun.store.origin import Location, Resolved, Wanted
from localrun.store.quantization import RemoteFile, group_files
from localrun.store.sources.base import Offer, Tell
from localrun.store.transfer import fetch_file, read_range
from localrun.store.wire import retry_after_s, unreachable

_TIMEOUT_S = 10.0
_TRIES = 3

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class Listing:
    """A repository at one commit.

    Attributes:
        repo: `user/name`, in the Hub's casing.
        commit: The revision's hash; names the files' content for good.
        files: Every file, in the Hub's order.
        license: As its author says, such as `apache-2.0`; empty if unsaid.
        is_gated: Its files are given only to who has accepted its terms.
    """

    repo: str
    commit: str
    files: tuple[RemoteFile, ...]
    license: str
    is_gated: bool


class Hub:
    """One Hub or mirror, asked with the user's token if there is one.

    Args:
        endpoint: Its address; empty for the library's own setting.
        is_offline: Never ask; every call raises `Offline`.
        token: None takes the user's (environment or token file), False sends none.
        pause_s: Seconds before a question is asked a second time.
    """

    def __init__(
        self,
        endpoint: str = "",
        *,
        is_offline: bool = False,
        token: str | bool | None = None,
        pause_s: float = 0.5,
    ) -> None:
        self.endpoint = (endpoint or constants.ENDPOINT).rstrip("/")
        self._pause_s = pause_s
        self._is_offline = is_offline or constants.HF_HUB_OFFLINE
        if token is None and not constants.HF_HUB_DISABLE_IMPLICIT_TOKEN:
            token = get_token()
        self._token: str | bool = token if isinstance(token, str) else False
        self._authorization = f"Bearer {token}" if self._token else ""
        self._api = HfApi(
            self.endpoint, token=self._token, library_name="localrun", library_version=__version__
        )

    def list_files(self, repo: str, revision: str = "main") -> Listing:
        """What a repository holds; one request.

        Raises:
            PullFailed: In the class that says why not.
        """
        info: Any = self._ask(
            repo,
            lambda: self._api.model_info(
                repo, revision=revision, files_metadata=True, timeout=_TIMEOUT_S
            ),
        )
        card = info.card_data
        files = tuple(
            RemoteFile(
                file.rfilename, file.size or 0, file.lfs.sha256 if file.lfs is not None else ""
            )
            for file in info.siblings or ()
        )
        stated = getattr(card, "license", None) if card is not None else None
        tags = [t.removeprefix("license:") for t in info.tags or () if t.startswith("license:")]
        name = str(stated or (tags[0] if tags else ""))
        return Listing(info.id, info.sha or revision, files, name, bool(info.gated))

    def resolve(self, repo: str, commit: str, path: str) -> Resolved:
        """Where a file's bytes are now; one request. A signed address may expire later.

        Raises:
            PullFailed: In the class that says why not.
        """
        url = hf_hub_url(repo, path, revision=commit, endpoint=self.endpoint)
        meta: Any = self._ask(
            f"{repo}/{path}",
            lambda: get_hf_file_metadata(
                url,
                token=self._token,
                endpoint=self.endpoint,
                timeout=_TIMEOUT_S,
                library_name="localrun",
                library_version=__version__,
            ),
        )
        etag = str(meta.etag or "")
        location = Location(str(meta.location), self.endpoint, self._authorization)
        return Resolved(location, int(meta.size or 0), etag if len(etag) == 64 else "", etag)

    def wanted(self, repo: str, commit: str, file: RemoteFile) -> Wanted:
        """A listed file as `transfer` wants it; asks the Hub where the listing has no sha256."""
        name = f"{repo}/{file.path}"
        if file.sha256:
            return Wanted(name, file.size, file.sha256)
        found = self.resolve(repo, commit, file.path)
        return Wanted(name, found.size, found.sha256, found.etag)

    def search_page(self, words: str) -> str:
        """The address of a search for models that we could run."""
        return f"{self.endpoint}/models?library=gguf&search={words}"

    def _ask(self, what: str, question: Callable[[], _Answer]) -> _Answer:
        """Ask, and again after a trouble that may pass."""
        if self._is_offline:
            raise Offline(
                "offline mode is on, and the Hub is not asked",
                hint="unset HF_HUB_OFFLINE (or LOCALRUN_HF_OFFLINE) to pull",
            )
        for n_tries in range(1, _TRIES + 1):
            try:
                with self._translated(what):
                    return question()
            except Offline:
                if n_tries == _TRIES:
                    raise
                threading.Event().wait(self._pause_s * n_tries)
        raise AssertionError

    @contextmanager
    def _translated(self, what: str) -> Generator[None]:
        """Turn the library's errors into ours."""
        try:
            yield
        except (RepositoryNotFoundError, DisabledRepoError) as error:
            raise self._no_repository(what, error) from error
        except (RevisionNotFoundError, EntryNotFoundError) as error:
            raise SourceMissing(
                f"{what} is not on {self.endpoint}", hint="the repository may have changed"
            ) from error
        except HfHubHTTPError as error:
            raise self._by_status(what, error) from error
        except HFValidationError as error:
            raise SourceMissing(f"{what} is no name of a repository: {error}") from error
        except OfflineModeIsEnabled as error:
            raise Offline(str(error), hint="unset HF_HUB_OFFLINE to pull") from error
        except httpx2.TransportError as error:
            raise unreachable(self.endpoint, error) from error
        except (json.JSONDecodeError, KeyError, TypeError, httpx2.InvalidURL) as error:
            raise BrokenTransfer(
                f"{self.endpoint} does not answer like a Hub ({error})",
                hint="check HF_ENDPOINT, and whether the network asks you to sign in",
            ) from error

    def _no_repository(self, what: str, error: HfHubHTTPError) -> PullFailed:
        # A gated repository counts as "not found" in the library, so it is looked at first.
        if isinstance(error, GatedRepoError):
            return AccessDenied(
                f"{what} is given only to people who accepted its terms",
                hint=f"accept them at {self._page(what)} and set HF_TOKEN",
            )
        if isinstance(error, DisabledRepoError):
            return AccessDenied(f"{what} was disabled by the Hub")
        hint = "check the name"
        if not self._authorization:
            hint += "; if it is private or gated, set HF_TOKEN"
        else:
            hint += "; if it is private, the token in HF_TOKEN may not see it"
        return SourceMissing(f"there is no repository {what} on {self.endpoint}", hint=hint)

    def _by_status(self, what: str, error: HfHubHTTPError) -> PullFailed:
        status = error.response.status_code
        if status in (401, 403):
            said = error.server_message or f"status {status}"
            return AccessDenied(
                f"{self.endpoint} refuses {what}: {said}",
                hint="check HF_TOKEN, or unset it for public models",
            )
        if status == 429:
            wait_s = retry_after_s(error.response.headers)
            hint = f"pull again in {wait_s:.0f} s" if wait_s else "pull again later"
            if not self._authorization:
                hint += "; with HF_TOKEN set the limits are higher"
            return RateLimited(
                f"{self.endpoint} asks to come back later", retry_after_s=wait_s, hint=hint
            )
        if status >= 500:
            return Offline(
                f"{self.endpoint} has trouble ({status})",
                hint="pull again later, or set HF_ENDPOINT to a mirror such as"
                " https://hf-mirror.com",
            )
        if status == 404:
            return SourceMissing(f"{what} is not on {self.endpoint}", hint="check the name")
        return BrokenTransfer(f"{self.endpoint} answers with status {status} for {what}")

    def _page(self, what: str) -> str:
        return f"{self.endpoint}/{'/'.join(what.split('/')[:2])}"


class HubSource:
    """One repository of the Hub.

    Args:
        hub: Whom to ask.
        repo: `user/name`.
        blobs: Where files go.
        revision: Branch, tag or commit.
    """

    def __init__(self, hub: Hub, repo: str, blobs: Blobs, revision: str = "main") -> None:
        self._hub, self._repo, self._blobs = hub, repo, blobs
        self._commit = revision

    def offer(self) -> Offer:
        """List the repository; from here on it is this commit."""
        listing = self._hub.list_files(self._repo, self._commit)
        self._repo, self._commit = listing.repo, listing.commit
        return Offer(
            where=f"hf.co/{listing.repo}@{listing.commit}",
            groups=tuple(group_files(listing.files)),
            license=listing.license,
            is_gated=listing.is_gated,
        )

    def reader(self, file: RemoteFile, /) -> ByteReader:
        """What reads spans of a file; its address is resolved once."""
        location = self._hub.resolve(self._repo, self._commit, file.path).location
        return lambda start, size: read_range(location, start, size)

    def fetch(self, file: RemoteFile, tell: Tell, is_cancelled: Callable[[], bool]) -> str:
        """Transfer the file."""
        wanted = self._hub.wanted(self._repo, self._commit, file)
        digest = f"sha256:{wanted.sha256}" if wanted.sha256 else ""
        return fetch_file(
            wanted,
            lambda: self._hub.resolve(self._repo, self._commit, file.path),
            self._blobs,
            Watcher(lambda n: tell(digest, wanted.size, n), is_cancelled),
        )
