import { feature, item, plan } from 'atmn';

export const messages = feature({ id: 'messages', name: 'Messages', type: 'metered', consumable: true });
export const seats = feature({ id: 'seats', name: 'Seats', type: 'metered', consumable: false });
export const sso = feature({ id: 'sso', name: 'SSO', type: 'boolean' });
export const credits = feature({ id: 'credits', name: 'Credits', type: 'credit_system', creditSchema: [{ meteredFeatureId: messages.id, creditCost: 2 }] });
export const aiCredits = feature({ id: 'ai_credits', name: 'AI Credits', type: 'ai_credit_system', defaultMarkup: 20, modelMarkups: { 'anthropic/claude-opus-4-8': { markup: 10 } }, providerMarkups: { openai: { markup: 5 } } });

export const free = plan({ id: 'free', name: 'Free', autoEnable: true, items: [item({ featureId: messages.id, included: 5, reset: { interval: 'month' } })] });
export const pro = plan({
	id: 'pro', name: 'Pro', description: 'For teams', group: 'main', price: { amount: 20, interval: 'month' },
	freeTrial: { durationLength: 14, durationType: 'day', cardRequired: true },
	items: [
		item({ featureId: messages.id, included: 1000, price: { amount: 1, interval: 'month', billingMethod: 'usage_based', billingUnits: 100 } }),
		item({ featureId: seats.id, included: 2, price: { amount: 10, interval: 'month', billingMethod: 'prepaid', billingUnits: 1, maxPurchase: 50 }, proration: { onIncrease: 'prorate_immediately', onDecrease: 'none' } }),
		item({ featureId: credits.id, included: 100, reset: { interval: 'month' }, rollover: { max: 50, expiryDurationType: 'month', expiryDurationLength: 1 } }),
		item({ featureId: sso.id }),
	],
});
export const proAnnual = pro.variant({ id: 'pro_annual', name: 'Pro Annual', customize: { price: { amount: 200, interval: 'year' } } });
export const topup = plan({ id: 'topup', name: 'Top up', addOn: true, items: [item({ featureId: messages.id, price: { tiers: [{ to: 100, amount: 0.1 }, { to: 'inf', amount: 0.05 }], tierBehavior: 'graduated', interval: 'one_off', billingMethod: 'prepaid', billingUnits: 1 } })] });
