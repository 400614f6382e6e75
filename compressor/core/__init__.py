"""Capture, coupling, plan, surgery, verify: what the library is built on."""
