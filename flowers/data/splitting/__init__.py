"""Stratified splits into training, validation and test images."""
