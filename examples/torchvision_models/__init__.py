"""The classification models of torchvision as nets, and the table of which of them agree."""
