"""torchvision's classification models as nets, and a table of their differences from the modules."""
