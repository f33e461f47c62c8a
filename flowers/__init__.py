"""Turn a folder of labelled photos into a classifier a person can trust."""
