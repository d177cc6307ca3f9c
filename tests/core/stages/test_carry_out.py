from __future__ import annotations

from nettailor_cli.core.stages.carry_out import Part, seed_of, stage_seed


def test_parts_that_are_alike_see_what_the_stage_alone_would_see_and_others_what_nobody_else_does() -> None:
    alike = {seed_of(Part(name, alike=True), "finetune", 3) for name in ("k01", "k02")}
    assert alike == {stage_seed("finetune", 3)} == {seed_of(Part("finetune"), "finetune", 3)}
    own = {seed_of(Part(name), "finetune", seed) for name in ("shrink-00", "shrink-01") for seed in (3, 4)}
    assert len(own | alike) == 5
