"""The dashboard: pages that show and steer the system, served by the gateway, without a build step."""
