from ifttn.insight.drawing_settings import DRAWING_PRESETS


def test_the_paper_preset_is_the_published_recipe():
    paper = DRAWING_PRESETS["paper"]
    assert sum(octave.steps for octave in paper.octaves) == 640
    assert paper.octaves[1].canvas == round(1.2 * paper.crop) == 269


def test_every_preset_of_training_has_one_of_drawing_with_its_crop():
    assert {name: DRAWING_PRESETS[name].crop for name in ("tiny", "small", "paper")} == {
        "tiny": 64,
        "small": 112,
        "paper": 224,
    }
