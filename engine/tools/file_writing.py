"""Writing files: whole or not at all. It blocks on the file system, and knows no cancel.

The new content goes into a temporary file beside the old one, to the disk, and then takes its name in one step: whoever
reads, and whatever crashes, finds the one or the other. A symlink is never written through, and a file that has other
names (hard links) is replaced under this one alone.
"""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

from engine.errors import ToolProblem
from engine.tools.file_access import FileContent, is_same_content, read_in
from engine.tools.path_guard import Place, opened_parent

NEW_MODE = 0o644  # less the umask
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS}  # of a file system that knows no hard links


class Draft:
    """The new content of a file, in a temporary file beside it. Made by `opened_draft`."""

    def __init__(self, place: Place, before: FileContent | None, *, directory: int, name: str, file: IO[bytes]) -> None:
        self._place = place
        self._before = before
        self._directory = directory
        self._name = name
        self._file = file

    def write(self, data: bytes) -> None:
        """Append to it. Raises OSError."""
        self._file.write(data)

    def publish(self) -> str:
        """Give it the name of the file, if that still is as it was, and return its new state. Raises OSError and
        ToolProblem; then the file is as it was."""
        self._file.flush()
        os.fsync(self._file.fileno())
        # As late as can be: what changes from here on changes in the same moment as our own writing.
        _check_unchanged(self._directory, self._place, self._before)
        if self._before is None:
            _link_new(self._directory, self._name, self._place)
        else:
            os.rename(self._name, self._place.path.name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        with suppress(OSError):  # some file systems cannot; the content itself is on the disk
            os.fsync(self._directory)
        return read_in(self._directory, self._place).state


def write_file(place: Place, data: bytes, before: FileContent | None) -> str:
    """Write the file if it still is as it was `before` (None: not there), and return its new state.

    What is missing of the directories above it is created. Raises OSError and ToolProblem; then it is as it was.
    """
    with opened_draft(place, before) as draft:
        draft.write(data)
        return draft.publish()


@contextmanager
def opened_draft(place: Place, before: FileContent | None) -> Iterator[Draft]:
    """A draft of what is to be in a file that now is as `before` (None: not there); what is missing of the directories
    above it is created. All of it is gone at the end of the block, unless it was published. Raises OSError and
    ToolProblem."""
    with opened_parent(place.path, create=before is None) as directory:
        name = f".countermand-{secrets.token_hex(8)}.tmp"
        descriptor = os.open(name, _CREATE, NEW_MODE if before is None else 0o600, dir_fd=directory)
        try:
            with os.fdopen(descriptor, "wb") as file:
                if before is not None:
                    with suppress(PermissionError):  # only root can give files away
                        os.fchown(descriptor, *before.owner)
                    os.fchmod(descriptor, before.mode)
                yield Draft(place, before, directory=directory, name=name, file=file)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=directory)


def _link_new(directory: int, name: str, place: Place) -> None:
    """Give a new file its name, unless the name is taken."""
    try:
        os.link(name, place.path.name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
    except FileExistsError:
        raise _changed(place) from None
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.rename(name, place.path.name, src_dir_fd=directory, dst_dir_fd=directory)


def _check_unchanged(directory: int, place: Place, before: FileContent | None) -> None:
    try:
        now = read_in(directory, place)
    except FileNotFoundError:
        if before is None:
            return
        raise _changed(place) from None
    if before is None or not is_same_content(now.state, before.state):
        raise _changed(place)


def _changed(place: Place) -> ToolProblem:
    return ToolProblem(
        f"{place.shown} was changed by somebody else in the meantime; nothing was written. View it again."
    )
