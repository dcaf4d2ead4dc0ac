from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from omg_graph import pipeline
from omg_graph.data.reader import read_data_file
from omg_graph.model.folder import load_model


def test_without_trust_the_label_is_the_anchor_s(tiny_model_folder: Path, tiny_data_file: Path) -> None:
    """The anchor as a floor has the same head and the same reading: only the network is left out."""
    model = load_model(tiny_model_folder)
    split = read_data_file(tiny_data_file).splits["valid"]
    clips = split.hide(np.tile([False, True, True], (len(split), 1)) & split.mask())
    seen = pipeline.observe(model, clips)
    plans = [pipeline.rerank(model, pipeline.propose(model, clips, seen.embedding, 2, 0), seen.embedding)]
    chosen = [ranking.best.values for ranking in plans[0]]
    embedded = pipeline.embed_plans(model, chosen, clips.ids)
    found = pipeline.retrieve(model, clips, seen, chosen, embedded, top_k=3)
    vectors = {name: rows.aggregated for name, rows in found.items()}
    with_trust = pipeline.point_estimates(model, clips, seen, embedded, vectors)
    model.executor.trust.zero_()
    without = pipeline.point_estimates(model, clips, seen, embedded, vectors)
    assert without.outputs is not None
    assert without.outputs_anchor is not None
    assert with_trust.outputs_anchor is not None
    assert torch.equal(without.outputs, without.outputs_anchor)
    assert torch.equal(with_trust.outputs_anchor, without.outputs_anchor)
