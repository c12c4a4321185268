"""What every training of the embedded model uses: budgets, rates, optimisers, checkpoints and logs."""
