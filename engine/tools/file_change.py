"""FileChanger: how the tools that change a file do it: seen before, asked for, kept for undo, and written whole."""

from collections.abc import Mapping

import msgspec

from engine.errors import ToolProblem
from engine.records.file import FileRead
from engine.tools.diff import Diff, diff
from engine.tools.disk import Disk
from engine.tools.file_access import READ_MAX, FileContent, TextFile, is_same_content, read_file, text_of
from engine.tools.file_writing import write_file
from engine.tools.path_guard import Place, resolve
from engine.tools.protocol import ToolContext, ToolOutcome
from engine.tools.session_files import SessionFiles

SHOWN_MAX = 256 << 10  # bytes of a file that are shown with a question and with a result: each reader gets them
UNSEEN = "{path} was not read in this session. View it before you change it."
CHANGED = "{path} has changed since this session read it. View it again before you change it."
NO_HISTORY = "\nThe file is too large for the file history: this change cannot be taken back."


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A file that is about to be changed, as it is now; `content` is None if it does not exist."""

    place: Place
    content: FileContent | None
    text: TextFile
    was_asked: bool  # already, because it is outside


def check_seen(place: Place, content: FileContent, seen: FileRead | None) -> None:
    """Raise ToolProblem unless a session has seen the file as it is."""
    if seen is None:
        raise ToolProblem(UNSEEN.format(path=place.shown))
    if not is_same_content(content.state, seen.state):
        raise ToolProblem(CHANGED.format(path=place.shown))


class FileChanger:
    """Changes files for the tools of one workspace."""

    def __init__(self, files: SessionFiles, disk: Disk) -> None:
        self._files = files
        self._disk = disk

    async def look(self, context: ToolContext, path: str, *, intended: str | None = None) -> Target:
        """The file as it is. Raises ToolProblem for one that the session has not seen as it is, and for what cannot be
        changed; PermissionDenied for one outside. `intended` is what it is to hold, if that is known already."""
        place = await self._disk.do(resolve, path, context.workspace)
        seen = await self._files.last_read(context.session_id, str(place.path))
        was_asked = not place.is_inside and seen is None
        if was_asked:  # before anything is told of it, even that it exists
            await self._ask(context, place, shown(new_content=intended))
        try:
            content = await self._disk.do(read_file, place)
        except FileNotFoundError:
            return Target(place=place, content=None, text=TextFile(text=""), was_asked=was_asked)
        if not content.is_whole:
            raise ToolProblem(f"{place.shown} is larger than {READ_MAX} bytes, and cannot be changed with this tool")
        text = text_of(content, place)
        check_seen(place, content, seen)
        return Target(place=place, content=content, text=text, was_asked=was_asked)

    async def change(self, context: ToolContext, target: Target, new: TextFile) -> "Changed":
        """Ask, keep what was there, and write. Raises ToolProblem, PermissionDenied, OSError and StoreError; then the
        file is as it was. Canceled, it is either as it was or as it was meant to be."""
        place, path = target.place, str(target.place.path)
        old_text, new_text = target.text.text, new.text
        if not target.was_asked:
            old_content = None if target.content is None else old_text
            await self._ask(context, place, shown(old_content=old_content, new_content=new_text))
        difference = await self._disk.do(diff, old_text, new_text, place.shown)
        is_kept = await self._files.keep(context.session_id, path, old_text)
        # From here to the record no checkpoint but the writing itself, which knows no cancel.
        state = await self._disk.do(write_file, place, new.encode(), target.content)
        is_kept = await self._files.record_change(context.session_id, path, new_text, state) and is_kept
        return Changed(diff=difference, old=old_text, new=new_text, note="" if is_kept else NO_HISTORY)

    async def _ask(self, context: ToolContext, place: Place, contents: Mapping[str, object]) -> None:
        await context.permit(
            action="write", path=place.path.parent, description=f"Write {place.shown}",
            params={"file_path": str(place.path), **contents},
        )  # fmt: skip


class Changed(msgspec.Struct, frozen=True):
    """A change that was made. `note` is for the model."""

    diff: Diff
    old: str
    new: str
    note: str

    def outcome(self, content: str, **metadata: object) -> ToolOutcome:
        """What the model and whoever draws it are told; the lines that came and went are counted for both."""
        counts = {"additions": self.diff.additions, "removals": self.diff.removals}
        content = f"{content} (+{self.diff.additions} -{self.diff.removals}){self.note}"
        return ToolOutcome(content=content, metadata=msgspec.json.encode({**counts, **metadata}).decode())

    def contents(self) -> dict[str, object]:
        """The whole texts, for the metadata; none that are too large to be shown."""
        return shown(old_content=self.old, new_content=self.new)


def shown(**contents: str | None) -> dict[str, object]:
    """Those of the texts that are there and not too large, by name."""
    return {name: text for name, text in contents.items() if text is not None and len(text.encode()) <= SHOWN_MAX}
