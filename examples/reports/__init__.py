"""The five reports that funcnet grew out of, rerun beside torch.nn: ``python -m examples.reports`` runs them all."""
