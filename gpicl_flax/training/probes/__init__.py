"""Measurements along training: diagnostics on unseen tasks, telemetry of gradients and updates."""
