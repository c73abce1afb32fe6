"""What a worker lets others see of itself: logs, metrics, health, traces."""
