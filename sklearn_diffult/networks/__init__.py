"""Raw networks on torch tensors; one table per purpose."""
