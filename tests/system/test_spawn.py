"""Children that behave and children that do not, all of them real processes."""

import asyncio
import contextlib
import os
import select
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from localrun.config import child_environment
from localrun.system import spawn
from localrun.system.spawn import Child, start_child
from tests.fakes.child import framed

ROOT = Path(__file__).parents[2]
ENV = child_environment(PYTHONPATH=str(ROOT))
DEADLINE_S = 20.0


@dataclass
class Heard:
    """What a child said, in order, and a way to wait for it."""

    frames: list[bytes] = field(default_factory=list)
    exits: list[tuple[int, str]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def on_frame(self, body: bytes) -> None:
        assert not self.exits, "a frame came after the exit"
        self.frames.append(body)
        self.changed.set()

    def on_exit(self, status: int, last_words: str) -> None:
        self.exits.append((status, last_words))
        self.changed.set()

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not is_so():
                self.changed.clear()
                await self.changed.wait()

    async def exit(self) -> tuple[int, str]:
        await self.until(lambda: bool(self.exits))
        return self.exits[0]


@contextlib.asynccontextmanager
async def child_of(mode: str) -> AsyncIterator[tuple[Child, Heard]]:
    heard = Heard()
    child = await start_child(
        "tests.fakes.child",
        env=ENV,
        on_frame=heard.on_frame,
        on_exit=heard.on_exit,
        arguments=[mode],
    )
    try:
        yield child, heard
    finally:
        child.close_input()
        await child.wait(DEADLINE_S)
        assert len(heard.exits) == 1


def test_frames_come_back_whole_and_in_order() -> None:
    async def scene() -> None:
        async with child_of("echo") as (child, heard):
            sent = [os.urandom(size) for size in (0, 1, 5, 70_000, 3)]
            for body in sent:
                child.send(framed(body))
            await heard.until(lambda: len(heard.frames) == len(sent))
            assert heard.frames == sent
            child.close_input()
            assert await child.wait(DEADLINE_S) == 0

    asyncio.run(scene())


def test_the_same_holds_on_uvloop() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def scene() -> None:
        async with child_of("echo") as (child, heard):
            child.send(framed(b"hello"))
            child.send_bulk(1, [framed(b"x" * 500_000), framed(b"end")])
            await heard.until(lambda: len(heard.frames) == 3)
            assert heard.frames[2] == b"end"

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scene())


def test_stray_prints_from_python_and_c_do_not_corrupt_frames() -> None:
    async def scene() -> None:
        async with child_of("prints") as (child, heard):
            child.send(framed(b"hello"))
            await heard.until(lambda: bool(heard.frames))
            assert heard.frames == [b"hello"]
            child.close_input()
            await child.wait(DEADLINE_S)
            assert heard.exits == [(0, "a stray print\na stray puts\na stray write")]

    asyncio.run(scene())


def test_a_megabyte_on_standard_error_does_not_block_the_child() -> None:
    async def scene() -> None:
        async with child_of("floods") as (child, heard):
            child.send(framed(b"still here"))
            await heard.until(lambda: bool(heard.frames))
            child.close_input()
            await child.wait(DEADLINE_S)
            lines = heard.exits[0][1].splitlines()
            assert lines == [f"line {n}" for n in range(10, 60)]

    asyncio.run(scene())


def test_a_crash_is_reported_after_the_last_frame_with_the_last_words() -> None:
    async def scene() -> None:
        async with child_of("crashes") as (_, heard):
            assert await heard.exit() == (-signal.SIGABRT, "out of luck")
            assert heard.frames == [b"last frame"]

    asyncio.run(scene())


def test_a_child_that_dies_before_it_connects_is_reported_once() -> None:
    async def scene() -> None:
        async with child_of("early") as (child, heard):
            child.send(framed(b"into the void"))
            child.send_bulk(1, [framed(b"x" * 100_000)] * 20)
            assert await heard.exit() == (7, "no such engine")
            child.send(framed(b"too late"))
            child.send_bulk(2, [framed(b"too late")])

    asyncio.run(scene())


def test_a_huge_announced_length_ends_the_child_and_nothing_after_it_is_heard() -> None:
    async def scene() -> None:
        async with child_of("announces") as (_, heard):
            status, _ = await heard.exit()
            assert status == -signal.SIGKILL
            assert b"never heard" not in heard.frames

    asyncio.run(scene())


def test_a_child_that_closes_its_socket_and_stays_is_killed_after_its_grace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(spawn, "EXIT_GRACE_S", 0.1)

    async def scene() -> None:
        async with child_of("closes") as (_, heard):
            assert (await heard.exit())[0] == -signal.SIGKILL

    asyncio.run(scene())


def test_a_grandchild_that_holds_standard_error_does_not_hide_the_exit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(spawn, "DRAIN_S", 0.1)

    async def scene() -> None:
        async with child_of("grandchild") as (_, heard):
            assert (await heard.exit())[0] == 3

    asyncio.run(scene())


def test_a_child_stuck_in_a_native_call_is_killed_by_wait() -> None:
    async def scene() -> None:
        async with child_of("stuck") as (child, heard):
            await heard.until(lambda: bool(heard.frames))
            child.close_input()
            assert await child.wait(0.05) == -signal.SIGKILL

    asyncio.run(scene())


def test_a_small_frame_overtakes_what_is_queued_and_dropped_frames_are_never_sent() -> None:
    async def scene() -> None:
        async with child_of("slow") as (child, heard):
            bulk = [framed(bytes([n]) * 100_000) for n in range(40)]
            child.send_bulk(1, bulk[:20])
            child.send_bulk(2, bulk[20:30])
            child.send_bulk(3, bulk[30:])
            child.send(framed(b"cancel 2"))
            assert child.drop_bulk(2)
            assert not child.drop_bulk(2)
            assert not child.drop_bulk(99)
            await heard.until(lambda: len(heard.frames) == 1)
            os.kill(child.pid, signal.SIGUSR1)
            await heard.until(lambda: len(heard.frames) == 32)
            marks = [body[0] for body in heard.frames[1:] if body != b"cancel 2"]
            assert marks == [*range(20), *range(30, 40)]
            assert heard.frames.index(b"cancel 2") < 12

    asyncio.run(scene())


def test_a_loop_that_ends_first_takes_its_child_along_without_a_warning() -> None:
    async def scene() -> int:
        child = await start_child(
            "tests.fakes.child",
            env=ENV,
            on_frame=lambda body: None,
            on_exit=lambda status, words: None,
            arguments=["echo"],
        )
        return os.pidfd_open(child.pid)

    ended = asyncio.run(scene())
    try:
        assert select.select([ended], [], [], DEADLINE_S)[0]
    finally:
        os.close(ended)


def test_a_module_that_does_not_exist_is_an_exit_with_the_reason() -> None:
    async def scene() -> None:
        heard = Heard()
        await start_child("tests.no_such", env=ENV, on_frame=heard.on_frame, on_exit=heard.on_exit)
        status, words = await heard.exit()
        assert status == 1
        assert "No module named tests.no_such" in words

    asyncio.run(scene())


PARENT = textwrap.dedent("""
    import asyncio, sys
    from localrun.config import child_environment
    from localrun.system.spawn import start_child

    async def scene():
        def tell(body):
            sys.stdout.write(body.decode() + "\\n")
            sys.stdout.flush()
        child = await start_child(
            "tests.fakes.child", env=child_environment(), on_frame=tell,
            on_exit=lambda status, words: None, arguments=["stuck"],
        )
        await child.wait(60)

    asyncio.run(scene())
""")


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_kill_9_of_the_parent_leaves_no_child_even_inside_a_native_call() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], env=ENV, cwd=ROOT, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        child = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
        try:
            assert select.select([child], [], [], DEADLINE_S)[0]
        finally:
            os.close(child)


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_a_child_whose_parent_died_before_it_asked_leaves_by_itself() -> None:
    import socket

    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.fakes.child",
                "stuck",
                "--frames-fd",
                str(theirs.fileno()),
            ],
            pass_fds=(theirs.fileno(),),
            env=ENV,
            cwd=ROOT,
        )
        ours.close()
    assert process.wait(DEADLINE_S) == 0
