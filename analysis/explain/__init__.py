"""Grad-CAM, saliency, attention, confusions and example images."""
