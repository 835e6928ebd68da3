"""How much each block turns the hidden states that pass through it.

Letters: B sequences, T tokens, D width.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from hpo.compress.blocks import block_names, recording
from hpo.errors import NonFinite
from hpo.measure.quiet import QuietNode
from hpo.models.text import Corpus


def collect_block_influence(model: nn.Module, corpus: Corpus) -> Tensor:
    """Return 1 - mean cosine between what enters a block and what leaves it, (blocks,) float64.

    In [0, 2]; near 0 for a block that hardly changes anything.

    Source: block influence of ShortGPT, Men et al. 2024, arXiv:2403.03853; allots sparsity in MoDeGPT,
    Lin et al. 2024, arXiv:2408.09632.

    Raises:
        NonFinite: a hidden state is NaN or infinite; names the block.
    """
    names = block_names(model)
    sums = torch.zeros(len(names), dtype=torch.float64)
    device, node = next(model.parameters()).device, QuietNode()
    for sequence in corpus.sequences:
        with node.working(), torch.no_grad(), recording(model, names) as calls:
            model(input_ids=sequence[None].to(device), use_cache=False)
            similar = [
                cosine_similarity(calls[n].given.float(), calls[n].output.float(), dim=-1) for n in names
            ]
            sums += torch.stack([values.double().sum() for values in similar]).cpu()
    for name, total in zip(names, sums, strict=True):
        if not torch.isfinite(total):
            raise NonFinite(f"a hidden state at {name} is NaN or infinite", "set model.dtype to float32")
    return 1 - sums / corpus.tokens
