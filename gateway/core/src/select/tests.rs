use super::*;

fn limit(limit: usize) -> AttemptLimit {
    AttemptLimit::new(limit).unwrap()
}

fn contender(what: u32, priority: u8, weight: u32) -> Contender<u32> {
    let turn = if weight == 0 {
        Turn::Withheld
    } else {
        Turn::Regular
    };
    Contender {
        what,
        rank: Rank {
            turn,
            priority,
            proximity: Proximity::SameCluster,
        },
        weight,
    }
}

fn draw_all(contenders: &[Contender<u32>], size: usize, rng: &mut Rng) -> Vec<u32> {
    let list = Shortlist::draw(contenders.iter().copied(), limit(size), rng);
    assert_eq!(list.len(), list.iter().count());
    list.iter().collect()
}

#[test]
fn nobody_gives_an_empty_list() {
    assert!(draw_all(&[], 5, &mut Rng::with_seed(1)).is_empty());
}

#[test]
fn the_best_ranks_are_kept_in_order_whatever_the_order_of_arrival() {
    let mut rng = Rng::with_seed(1);
    let mut contenders: Vec<_> = (0..40).map(|i| contender(u32::from(i), i, 1)).collect();
    for _ in 0..100 {
        rng.shuffle(&mut contenders);
        assert_eq!(draw_all(&contenders, 4, &mut rng), [0, 1, 2, 3]);
    }
}

#[test]
fn one_that_arrives_twice_is_kept_once_at_its_better_place() {
    let mut rng = Rng::with_seed(1);
    let twice = [
        contender(7, 3, 1),
        contender(8, 2, 1),
        contender(7, 1, 1),
        contender(7, 2, 1),
    ];

    assert_eq!(draw_all(&twice, 5, &mut rng), [7, 8]);
    assert_eq!(draw_all(&twice, 1, &mut rng), [7]);
}

#[test]
fn the_second_place_is_drawn_by_weight_among_the_rest() {
    let mut rng = Rng::with_seed(1);
    let contenders = [
        contender(1, 0, 1_000_000),
        contender(2, 0, 1),
        contender(3, 0, 3),
    ];

    let rounds = 4000;
    let second = |rng: &mut Rng| draw_all(&contenders, 2, rng)[1] == 3;
    let threes = (0..rounds).filter(|_| second(&mut rng)).count();

    assert!((2880..3120).contains(&threes), "{threes} of {rounds}");
}

#[test]
fn the_heaviest_weight_and_the_lightest_can_share_a_tier() {
    let mut rng = Rng::with_seed(1);
    let contenders = [
        contender(1, 0, u32::MAX),
        contender(2, 0, 1),
        contender(3, 0, 0),
    ];

    for _ in 0..1000 {
        assert_eq!(draw_all(&contenders, 3, &mut rng), [1, 2, 3]);
    }
}
