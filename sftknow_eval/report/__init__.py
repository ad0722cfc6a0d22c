"""Reports: a fine-tune's report card, a study beside the paper's figures, and the gate."""
