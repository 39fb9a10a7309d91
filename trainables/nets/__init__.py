"""Networks: convnet, wide ResNet, timm and custom ones, pretrained weights, heads."""
