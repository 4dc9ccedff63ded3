"""Rules and alerts are valid, complete, tested both ways, and have a runbook."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from .repository import ROOT, run

FOLDER = ROOT / "deploy/prometheus"
TESTS = sorted((FOLDER / "tests").glob("*.yml"))
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="promtool is not installed (Debian's package prometheus): rules were NOT evaluated",
)


def rules(kind: str) -> list[dict[str, Any]]:
    """All rules with the key `kind`: "alert" or "record"."""
    groups = [
        group
        for file in sorted((FOLDER / "rules").glob("*.yml"))
        for group in yaml.safe_load(file.read_text())["groups"]
    ]
    return [rule for group in groups for rule in group["rules"] if kind in rule]


ALERTS = {rule["alert"]: rule for rule in rules("alert")}


def anchors(text: str) -> set[str]:
    """The anchors of a Markdown page's headings, as its readers make them."""
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@needs_promtool
def test_configuration_and_rules_pass_promtool() -> None:
    outcome = run("promtool", "check", "config", FOLDER / "prometheus.yml")
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert "2 rule files found" in outcome.stdout


@needs_promtool
@pytest.mark.parametrize("file", TESTS, ids=lambda path: path.stem)
def test_rules_do_what_their_tests_say(file: Path) -> None:
    outcome = run("promtool", "test", "rules", file)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


@needs_promtool
def test_a_changed_threshold_fails_its_test(tmp_path: Path) -> None:
    copy = shutil.copytree(FOLDER, tmp_path / "prometheus")
    alerts = copy / "rules/alerts.yml"
    changed = alerts.read_text().replace("ratio_rate5m > 0.01", "ratio_rate5m > 0.5")
    assert changed != alerts.read_text()
    alerts.write_text(changed)
    assert run("promtool", "test", "rules", copy / "tests/calls.yml").returncode == 1


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_alert_says_how_bad_it_is_and_what_to_read(name: str) -> None:
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert {"summary", "description", "runbook_url"} == rule["annotations"].keys()
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert anchor == name.lower()
    assert anchor in anchors((ROOT / page).read_text())


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_alert_is_tested_firing_and_quiet(name: str) -> None:
    cases = [
        one["exp_alerts"]
        for file in TESTS
        for test in yaml.safe_load(file.read_text())["tests"]
        for one in test.get("alert_rule_test", ())
        if one["alertname"] == name
    ]
    assert any(cases), "no test in which it fires"
    assert not all(cases), "no test in which it stays quiet"


def test_the_alerts_that_people_act_on_are_there() -> None:
    wanted = ["TargetDown", "NotReady", "NoTraffic", "ErrorRatioHigh", "LatencyHigh", "Refusals"]
    wanted += ["QueueWaitHigh", "ProviderFallback", "EventLoopLag"]
    assert {f"Velatura{name}" for name in wanted} <= ALERTS.keys()


def test_every_rule_is_about_our_job() -> None:
    for rule in [*rules("alert"), *rules("record")]:
        raw = re.findall(r"\b(?:grpc_server|velatura|process)_\w+(?![\w:]*:)\b", rule["expr"])
        for metric in raw:
            if not re.search(rf":{metric}:", rule["expr"]):
                assert f'{metric}{{job="velatura"' in rule["expr"], rule["expr"]


def test_recorded_names_say_level_metric_and_operation() -> None:
    for rule in rules("record"):
        assert re.fullmatch(r"[a-z_]+:[a-z_]+:[a-z0-9_]+", rule["record"]), rule["record"]
