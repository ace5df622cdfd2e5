"""Which protocols does the gateway speak? One file each."""
