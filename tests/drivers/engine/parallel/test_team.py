"""Two processes that meet by a file: what they compute together, what they open, and what they leave."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from llmos.drivers.engine.parallel import team
from llmos.drivers.engine.parallel.team import Planned, RankLost

MEMBER = """
import sys, psutil, torch
from pathlib import Path
from llmos.drivers.engine.parallel import team
rank, meeting = int(sys.argv[1]), Path(sys.argv[2])
met = team.join(meeting, rank, 2, torch.device("cpu"), 60.0)
assert (met.rank, met.ranks) == (rank, 2)
assert met.sum(torch.tensor([1.0, rank + 1.0])).tolist() == [2.0, 3.0]
assert met.sum(torch.full((2,), rank + 1, dtype=torch.bfloat16)).tolist() == [3.0, 3.0]
assert met.gather(torch.tensor([[rank], [10 + rank]])).tolist() == [[0, 1], [10, 11]]
bound = {each.laddr.ip for each in psutil.Process().net_connections()}
assert bound and bound <= {"127.0.0.1", "::1"}, bound
team.leave()
"""


def test_two_meet_compute_and_leave_without_a_door_to_the_network() -> None:
    with team.meeting_place() as meeting:
        assert meeting.parent.stat().st_mode & 0o077 == 0
        command = [sys.executable, "-c", MEMBER]
        members = [subprocess.Popen([*command, str(rank), str(meeting)]) for rank in range(2)]
        assert [member.wait(60) for member in members] == [0, 0]
    assert not meeting.parent.exists()


def test_who_meets_nobody_is_told(tmp_path: Path) -> None:
    with pytest.raises(RankLost, match="do not come together"):
        team.join(tmp_path / "meeting", 0, 2, torch.device("cpu"), 0.1)
    team.leave()
    assert "GLOO_SOCKET_IFNAME" not in os.environ


def test_a_team_on_paper_knows_shapes() -> None:
    paper = Planned(3)
    part = torch.empty(2, 4, device="meta")
    assert paper.gather(part).shape == (2, 12)
    assert paper.sum(part) is part
