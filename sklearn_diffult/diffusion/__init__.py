"""Class-conditional diffusion on torch tensors; knows nothing of scikit-learn."""
