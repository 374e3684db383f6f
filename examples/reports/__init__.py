"""The five reports that led to funcnet, rerun beside torch.nn: ``python -m examples.reports`` runs them all."""
