"""`download`: saves what is at a URL into a file."""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Annotated

import msgspec
import trio
from msgspec import Meta

from engine.errors import ToolProblem
from engine.records.ids import SessionId
from engine.tools.arguments import read_arguments, schema_of
from engine.tools.disk import Disk
from engine.tools.file_access import FileContent, read_file, text_of
from engine.tools.file_change import check_seen
from engine.tools.file_writing import Draft, opened_draft
from engine.tools.path_guard import Place, resolve
from engine.tools.protocol import ToolContext, ToolOutcome
from engine.tools.session_files import SessionFiles
from engine.tools.web_reader import Page, WebReader, check_url

BYTES_MAX = 256 << 20  # of a file; a disk is not filled by a URL
TIMEOUT_S = 300
NOT_KEPT = "\nWhat was there is no text, or too large for the file history: it cannot be taken back."
TOO_LARGE = "{url} has more than {limit} bytes; no more are downloaded, and nothing was written"

Seconds = Annotated[int, Meta(ge=1, le=600)]


class DownloadArguments(msgspec.Struct, frozen=True, kw_only=True):
    """What the model gives."""

    url: Annotated[str, Meta(min_length=1, description="http:// or https://")]
    file_path: Annotated[str, Meta(description="The file, relative to the workspace or absolute")]
    timeout: Annotated[Seconds, Meta(description="In seconds, for all of it.")] = TIMEOUT_S


class DownloadTool:
    """Implements `Tool`."""

    name = "download"
    description = (
        "Save what is at a URL into a file, byte for byte: images, archives, data. Directories that are missing are"
        " created. A file that is there is replaced only if this session has seen it as it is. Only public addresses"
        " can be read, and at most 256 MiB. To read a page, use fetch."
    )
    parameters: Mapping[str, object] = schema_of(DownloadArguments)
    is_parallel = True

    def __init__(self, reader: WebReader, files: SessionFiles, disk: Disk) -> None:
        self._reader = reader
        self._files = files
        self._disk = disk

    async def call(self, arguments: Mapping[str, object], context: ToolContext) -> ToolOutcome:
        """Ask, then download it. Canceled, it leaves no connection, and the file is as it was or whole."""
        asked = read_arguments(arguments, DownloadArguments)
        check_url(asked.url)
        place = await self._disk.do(resolve, asked.file_path, context.workspace)
        if place.is_inside:  # of what is outside, nothing is told before the answer
            await self._look(context.session_id, place)
        await context.permit(
            action="download", path=place.path.parent, description=f"Download {asked.url} to {place.shown}",
            params={"url": asked.url, "file_path": str(place.path), "timeout": asked.timeout},
        )  # fmt: skip
        before = await self._look(context.session_id, place)
        with ExitStack() as stack:
            draft = await self._disk.do(stack.enter_context, opened_draft(place, before))
            size, kind = await self._fill(draft, asked)
            note = await self._keep(context.session_id, place, before)
            # From here to the record no checkpoint but the writing itself, which knows no cancel.
            state = await self._disk.do(draft.publish)
        await self._files.record_read(context.session_id, str(place.path), state)
        return ToolOutcome(content=f"Downloaded {size} bytes to {place.shown} ({kind or 'of no type'}).{note}")

    async def _look(self, session_id: SessionId, place: Place) -> FileContent | None:
        """The file as it is; None if it is not there. Raises ToolProblem for one that the session has not seen so."""
        seen = await self._files.last_read(session_id, str(place.path))
        try:
            content = await self._disk.do(read_file, place)
        except FileNotFoundError:
            return None
        check_seen(place, content, seen)
        return content

    async def _keep(self, session_id: SessionId, place: Place, before: FileContent | None) -> str:
        """Keep what is replaced; a note for the model, if that cannot be kept."""
        if before is None:
            await trio.lowlevel.checkpoint()
            return ""
        try:
            text = text_of(before, place).text
        except ToolProblem:
            await trio.lowlevel.checkpoint()
            return NOT_KEPT
        return "" if await self._files.keep(session_id, str(place.path), text) else NOT_KEPT

    async def _fill(self, draft: Draft, asked: DownloadArguments) -> tuple[int, str]:
        """Fill the draft; how many bytes it has, and of what kind. Raises ToolProblem and OSError."""
        size = 0
        with trio.move_on_after(asked.timeout):
            async with self._reader.open(asked.url, timeout_s=asked.timeout) as page:
                check_size(page, page.length or 0)
                async for chunk in page.chunks:
                    size += len(chunk)
                    check_size(page, size)
                    await self._disk.do(draft.write, chunk)
            return size, page.content_type
        raise ToolProblem(f"{asked.url} cannot be downloaded within {asked.timeout} seconds; nothing was written")


def check_size(page: Page, size: int) -> None:
    """Raise ToolProblem for more than may be."""
    if size > BYTES_MAX:
        raise ToolProblem(TOO_LARGE.format(url=page.url, limit=BYTES_MAX))
