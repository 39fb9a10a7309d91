"""Networks: our own family, timm, user-defined, pretrained weights, heads."""
