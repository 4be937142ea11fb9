"""Sessions: the conversations of a workspace, and what was said in them."""

from collections.abc import Callable

from msgspec import UNSET

from engine.errors import ChildSession, NotFound
from engine.events.log import EventLog
from engine.records.change import Change, CreateSession, DeleteSession, UpdateSession, Write
from engine.records.ids import SessionId, WorkspaceId, new_session_id
from engine.records.message import Message
from engine.records.session import Session, Todo
from engine.store.protocol import Committed, Store


class Sessions:
    """Creates, reads and changes the sessions of one workspace. Every method may block and raises StoreError."""

    def __init__(self, store: Store, log: EventLog, workspace_id: WorkspaceId, now_us: Callable[[], int]) -> None:
        self._store = store
        self._log = log
        self._workspace_id = workspace_id
        self._now_us = now_us

    async def create(self, title: str, parent_id: str | None = None) -> Session:
        """A new session, stored."""
        now = self._now_us()
        session = Session(
            id=new_session_id(), workspace_id=self._workspace_id, title=title, created_at_us=now, updated_at_us=now,
            parent_id=SessionId(parent_id) if parent_id else None,
        )  # fmt: skip
        await self._commit(CreateSession(session))
        return session

    async def all(self) -> list[Session]:
        """Top-level sessions, the most recently updated first."""
        return await self._store.sessions(self._workspace_id)

    async def get(self, session_id: str) -> Session:
        """One session. Raises NotFound."""
        session = await self._store.session(self._workspace_id, SessionId(session_id))
        if session is None:
            raise NotFound("session", session_id)
        return session

    async def get_own(self, session_id: str) -> Session:
        """One session that is nobody's child. Raises NotFound and ChildSession."""
        session = await self.get(session_id)
        if session.parent_id is not None:
            raise ChildSession(session.id, session.parent_id)
        return session

    async def update(
        self, session_id: str, *, title: str | None = None, todos: tuple[Todo, ...] | None = None
    ) -> Session:
        """Change the title or the to-do list, and nothing else; the session as it is then. Raises NotFound."""
        change = UpdateSession(
            session_id=SessionId(session_id), at_us=self._now_us(), title=UNSET if title is None else title,
            todos=UNSET if todos is None else todos,
        )  # fmt: skip
        await self._commit(change)
        return await self.get(session_id)

    async def delete(self, session_id: str) -> bool:
        """Delete a session whose runs have ended, with its messages; whether it was deleted."""
        return (await self._commit(DeleteSession(SessionId(session_id)))).applied[0]

    async def messages(self, session_id: str) -> list[Message]:
        """What was said, turn by turn. Raises NotFound."""
        await self.get(session_id)
        return await self._store.messages(self._workspace_id, SessionId(session_id))

    async def user_messages(self, session_id: str | None) -> list[Message]:
        """What people said, the newest first; in all sessions if none is given. Raises NotFound."""
        if session_id is not None:
            await self.get(session_id)
        return await self._store.user_messages(
            self._workspace_id, SessionId(session_id) if session_id is not None else None
        )

    async def _commit(self, write: Write) -> Committed:
        return await self._log.commit(Change(self._workspace_id, self._now_us(), (write,)))
