#![cfg_attr(fuzzing, no_main)]

corinth_fuzz::program!(corinth_fuzz::peering_message);
