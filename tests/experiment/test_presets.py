from ifttn.experiment.presets import CHOICES, PARENTS, PRESETS, own_choices
from ifttn.experiment.recipes import RECIPES


def test_a_preset_names_only_what_differs_from_its_parent():
    for name, parent in PARENTS.items():
        for field in own_choices(name):
            assert getattr(PRESETS[name], field) != getattr(PRESETS[parent], field), f"{name}.{field}"


def test_every_choice_has_its_reason():
    assert all(choice.why for choices in CHOICES.values() for choice in choices.values())


def test_the_papers_schedule_is_the_papers():
    paper = PRESETS["paper"]
    assert (paper.backbone, paper.segments, paper.optimiser, paper.batch) == ("resnet50", 7, "sgd", 64)
    found = {name: (s.epochs, s.lr, s.decay_at) for name, s in paper.schedules.items()}
    assert found["spatial"] == (80, 1e-3, (30, 60))
    assert found["temporal"] == found["mv-temporal"] == (250, 1e-3, (100, 200))
    assert found["ttn"] == found["mv-ttn"] == (200, 1e-3, (80, 160))
    assert paper.dropout == {"rgb": 0.8, "motion": 0.7, "ttn": 0.8}


def test_other_epochs_of_a_stage_let_the_rate_fall_after_the_same_shares():
    paper = PRESETS["paper"].lasting({"ttn": 100, "no such stage": 3})
    assert (paper.schedules["ttn"].epochs, paper.schedules["ttn"].decay_at) == (100, (40, 80))
    assert paper.schedules["joint"] == PRESETS["paper"].schedules["joint"]
    tiny = PRESETS["tiny"].fitted(RECIPES["if-ttn"], 64).lasting({"ttn": 32}).schedules["ttn"]
    assert (tiny.epochs, tiny.decay_at) == (32, None)
