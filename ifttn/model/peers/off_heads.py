"""The names of the heads of OFF, apart from the network, so that recipes need no torch."""


def heads_of(modality: str) -> dict[str, str]:
    """Where votes come from -> the name of their head: "<modality>" of the base, "off-<modality>" of the last level.

    The heads of the other levels (".28", ".14") are only for the loss: the paper has a loss at every level, and scores
    with the last.
    """
    return {"base": modality, "28": f"off-{modality}.28", "14": f"off-{modality}.14", "7": f"off-{modality}"}
