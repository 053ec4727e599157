"""The names of OFF's heads. This file is separate from the network, so that recipes can be read without torch."""


def heads_of(modality: str) -> dict[str, str]:
    """Source of the votes -> name of their head: "<modality>" for the base, "off-<modality>" for the last level.

    The heads of the other levels (".28", ".14") only serve the loss: the paper has a loss at every level, but scores
    only with the last.
    """
    return {"base": modality, "28": f"off-{modality}.28", "14": f"off-{modality}.14", "7": f"off-{modality}"}
