"""Directories: which one a path means."""

from pathlib import Path

import anyio.to_thread
import trio

from engine.errors import WorkspacePathInvalid


def resolve(path: str) -> Path:
    """The directory with every symlink resolved. Blocks on the file system. Raises WorkspacePathInvalid."""
    if not path or "\0" in path or not Path(path).is_absolute():
        raise WorkspacePathInvalid(path, "an absolute path is needed")
    try:
        root = Path(path).resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise WorkspacePathInvalid(path, getattr(error, "strerror", None) or str(error)) from None
    if not root.is_dir():
        raise WorkspacePathInvalid(path, "it is not a directory")
    return root


async def find_directory(path: str, *, in_thread: bool) -> Path:
    """`resolve` without blocking the others, if threads may be used. Raises WorkspacePathInvalid."""
    if in_thread:
        return await anyio.to_thread.run_sync(resolve, path)
    await trio.lowlevel.checkpoint()
    return resolve(path)
