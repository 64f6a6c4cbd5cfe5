"""`prompt-tuning serve` under load: beside PEFT and transformers, and for as long as one likes."""
