"""What every route needs: settings, keys, sessions, models, errors, limits, streams."""
