"""`pet bench --profiles`: whole rounds of both profiles are played, and every role has its figure."""

from __future__ import annotations

import json

from quick_benches import make_quick

from pet import cli
from pet.commands import bench_profiles


def test_a_round_of_each_profile_is_compared_role_by_role(monkeypatch, capsys, tmp_path):
    make_quick(monkeypatch)
    monkeypatch.setattr(bench_profiles, "TURNS", 1)
    file = tmp_path / "bench.json"
    arguments = ["bench", "--sizes", "10", "--configs", "prime-f32-b0-m3", "--profiles", "--peer-size", "1000"]
    assert cli.run([*arguments, "--json", str(file)]) == 0
    found = {(each["role"], each["what"].split(",")[0]): each for each in json.loads(file.read_text())["profiles"]}
    assert {role for role, _ in found} == {"participant", "coordinator", "summing"}
    assert all(each["xaynet"] > 0 and each["pet1"] > 0 for each in found.values())
    sent = found["participant", "send an update"]
    assert 6 < sent["xaynet"] < 7  # 6 bytes an element, and what is around them
    assert 5 < sent["pet1"] < 7  # 4 bytes an element; header, leaf digest and the rest have 1.6 KB here
    assert "last byte to answer" in capsys.readouterr().out
