"""Agno AgentOS on PostgreSQL, served by uvicorn: what `cargo xtask bench http` measures beside agentkeep.

usage: agno_peer.py URL fill|serve SETTINGS, with SETTINGS = {"sessions": N, "messages": M, "port": P, "workers": W}.
`fill` makes the sessions, each with M messages in runs of two, and prints {"done": N}.
"""

import json
import os
import sys
import time

from agno.agent import Agent
from agno.db.postgres import PostgresDb
from agno.models.message import Message
from agno.os import AgentOS
from agno.run.agent import RunOutput
from agno.session.agent import AgentSession

TEXT = ("The customer asks whether flight HAT136 can still be changed. " * 9)[:500]


def database(url: str) -> PostgresDb:
    return PostgresDb(db_url=url.replace("postgres://", "postgresql+psycopg://", 1), db_schema="agno")


def fill(url: str, sessions: int, messages: int) -> None:
    db = database(url)
    now = int(time.time())
    for number in range(1, sessions + 1):
        session_id = f"session-{number}"
        db.upsert_session(
            AgentSession(
                session_id=session_id, agent_id="agent", user_id="user", created_at=now, updated_at=now,
                session_data={"session_name": f"session {number}", "session_state": {"topic": "flights"}},
                metadata={"tags": ["airline", "change"]},
            )
        )
        for run in range(messages // 2):
            said = [Message(role="user", content=TEXT), Message(role="assistant", content=TEXT)]
            output = RunOutput(
                run_id=f"{session_id}-{run}", session_id=session_id, agent_id="agent", user_id="user",
                content=TEXT, messages=said, created_at=now,
            )
            db.upsert_run(output, session_id=session_id)


def app():
    """What each worker of uvicorn serves."""
    db = database(os.environ["AGNO_URL"])
    return AgentOS(id="bench", agents=[Agent(id="agent", name="agent", db=db)], telemetry=False).get_app()


def main() -> None:
    url, case, settings = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    if case == "fill":
        fill(url, settings["sessions"], settings["messages"])
        print(json.dumps({"done": settings["sessions"]}), flush=True)
        return
    import uvicorn

    os.environ["AGNO_URL"] = url
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    uvicorn.run(
        "agno_peer:app", factory=True, host="127.0.0.1", port=settings["port"], workers=settings["workers"],
        log_level="warning", access_log=False,
    )


if __name__ == "__main__":
    main()
