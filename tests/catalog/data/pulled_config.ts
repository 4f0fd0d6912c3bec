import { billingControls, feature, item, plan } from 'atmn';

// Features
export const messages = feature({
	id: 'messages',
	name: 'Messages',
	type: 'metered',
	consumable: true,
});

export const seats = feature({
	id: 'seats',
	name: 'Seats',
	type: 'metered',
	consumable: false,
});

export const sso = feature({
	id: 'sso',
	name: 'SSO',
	type: 'boolean',
});

export const credits = feature({
	id: 'credits',
	name: 'Credits',
	type: 'credit_system',
	creditSchema: [{ meteredFeatureId: 'messages', creditCost: 2 }],
});

export const aiCredits = feature({
	id: 'ai_credits',
	name: 'AI Credits',
	type: 'ai_credit_system',
	modelMarkups: { 'anthropic/claude-opus-4-8': { markup: 10 } },
	defaultMarkup: 20,
	providerMarkups: { openai: { markup: 5 } },
});

export const old = feature({
	id: 'old',
	name: 'Old',
	type: 'metered',
	consumable: true,
	eventNames: ['old.used'],
	archived: true,
});

export const free = feature({
	id: 'free',
	name: 'Clash',
	type: 'boolean',
});

export const feature1st = feature({
	id: '1st',
	name: 'Digit',
	type: 'boolean',
});

// Plans
export const freePlan = plan({
	id: 'free',
	name: 'Free',
	autoEnable: true,
	items: [
		item({
			featureId: messages.id,
			included: 5,
			reset: {
				interval: 'month',
			},
		}),
	],
});

export const pro = plan({
	id: 'pro',
	name: 'Pro',
	description: 'For teams',
	group: 'main',
	price: {
		amount: 20,
		interval: 'month',
	},
	items: [
		item({
			featureId: messages.id,
			included: 1000,
			price: {
				amount: 1,
				billingUnits: 100,
				billingMethod: 'usage_based',
				interval: 'month',
			},
		}),
		item({
			featureId: seats.id,
			included: 2,
			price: {
				amount: 10,
				billingUnits: 1,
				billingMethod: 'prepaid',
				maxPurchase: 50,
				interval: 'month',
			},
			proration: { onIncrease: 'prorate_immediately', onDecrease: 'none' },
		}),
		item({
			featureId: credits.id,
			included: 100,
			reset: {
				interval: 'month',
			},
			rollover: {
				max: 50,
				expiryDurationType: 'month',
				expiryDurationLength: 1,
			},
		}),
		item({ featureId: sso.id }),
		item({
			featureId: aiCredits.id,
			unlimited: true,
		}),
	],
	freeTrial: { durationLength: 14, durationType: 'day', cardRequired: true },
	billingControls: billingControls({
		auto_topups: [{ feature_id: 'messages', threshold: 10, quantity: 100 }],
	}),
});

export const proAnnual = pro.variant({
	id: 'pro_annual',
	name: 'Pro Annual',
	customize: {
		price: { amount: 200, interval: 'year' },
		addItems: [
			item({
				featureId: seats.id,
				included: 9,
			}),
		],
		removeItems: [
			{
				featureId: sso.id,
			},
		],
	},
});

export const topUp = plan({
	id: 'top-up',
	name: 'Top up',
	addOn: true,
	archived: true,
	items: [
		item({
			featureId: messages.id,
			included: 0,
			price: {
				tiers: [
					{ to: 100, amount: 0.1 },
					{ to: 'inf', amount: 0.05, flatAmount: 2 },
				],
				billingUnits: 1,
				billingMethod: 'prepaid',
				tierBehavior: 'graduated',
				interval: 'one_off',
			},
		}),
	],
});
