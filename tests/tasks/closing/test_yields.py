"""The yield of a run: what its markers and scores say, in run.json, in the status and on the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from blora.checks.limits import calibrated, limits_for
from blora.settings.judging import CheckSettings
from manifests import layout
from manifests.store.store import Store
from tasks.closing.collect import close_run
from tasks.closing.status import full_status
from tasks.run.inventory import take_inventory
from tasks.run.plan import Plan, PlannedSample
from tests.made_run import finish, plan_run


def copying(sample: PlannedSample, number: int) -> dict[str, float]:
    """Pictures in the style "ink" show the ink picture's thing; else only further candidates do not."""
    copied = sample.style_name == "ink" or sample.candidate_of is None
    return {"transfer": 0.1 if copied else 0.6, "content_lite0": 0.5, "leakage_lite0": 0.9 if copied else 0.2}


def judged(store: Store, plan: Plan, passed: list[bool | None]) -> dict[str, Any]:
    """Give the adapters' markers a check each and close the run again; its run.json."""
    for adapter, verdict in zip(plan.adapters, passed, strict=True):
        key = layout.adapter_marker_key(adapter.adapter_id)
        failed = [] if verdict is not False else ["split_image"]
        check = {"attempt": 1, "attempts": 1, "passed": verdict, "failed": failed}
        check |= {"measures": {"split_image": 0.9}, "limits": {} if verdict is None else {"split_image": 0.5}}
        store.replace(key, json.dumps(json.loads(store.read(key)) | {"check": check}).encode())
    close_run(store, plan, take_inventory(store, plan), (), {})
    return dict(json.loads(store.read(layout.run_key(plan.run.run_id, "run.json"))))


def test_the_yield_counts_adapters_pictures_and_chosen_pictures(tmp_path: Path) -> None:
    settings = {"check": {"style_copy": 0.0}}
    store, plan = plan_run(tmp_path, ["apple"], ["wave", "ink"], candidates=2, settings=settings)
    finish(store, plan, scorer=copying)
    told = judged(store, plan, [True, False, None])["yield"]
    assert (told["adapters_passed"], told["adapters_judged"]) == (1, 2)
    assert (told["pictures_passed"], told["pictures_judged"]) == (1, 4)
    assert (told["chosen_passed"], told["chosen_judged"]) == (1, 2)
    sentence = "1 of 2 adapters, 1 of 4 pictures, 1 of 2 chosen pictures"
    status = full_status(store, plan.run.run_id)
    assert told["sentence"] == status.passed == sentence
    assert status.outcome.complete, "one training was asked for: a failed check is told and is no fault"
    page = (Path(store.root) / layout.report_prefix(plan.run.run_id) / "index.html").read_text("utf-8")
    assert sentence in page and '<span class="tag">split_image</span>' in page


def test_what_cannot_be_judged_is_not_counted(tmp_path: Path) -> None:
    store, plan = plan_run(tmp_path, ["apple"], ["wave"], settings={"check": {"style_copy": 0.0}})
    finish(store, plan, scorer=lambda *_: {"transfer": 0.5})
    told = judged(store, plan, [None, None])["yield"]
    assert told["sentence"] == "" and told["pictures_judged"] == told["adapters_judged"] == 0


def test_the_embedded_model_is_calibrated_and_others_are_not() -> None:
    from blora.bases.locate import base_revision

    revision = base_revision("embedded")
    hint = "the embedded model was replaced: run `python -m blora.checks.calibrate` and commit blora/checks/limits.json"
    assert revision in calibrated(), hint
    entry = calibrated()[revision]
    assert limits_for(CheckSettings(), revision) == entry["limits"] and len(entry["limits"]) == 6
    assert entry["drawings"] == 192 and entry["reconstructions"] >= 16
    assert all(one["good"] >= 30 and one["bad"] >= 30 for one in entry["evidence"].values())
    assert limits_for(CheckSettings(), "another") == {}
    assert limits_for(CheckSettings(split_image=0.9), revision)["split_image"] == 0.9
