"""Which source tensor becomes which target tensor: rules, the tables of data, recognition, and the plan."""
