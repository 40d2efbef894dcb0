import { useInfiniteQuery, useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { api, at } from './client';
import { keys } from './queries';
import type { components } from './schema';
import type { Invitation } from './types';

type Schemas = components['schemas'];

export type SignInLine = Schemas['SignInView'];
export type AccessToken = Schemas['AccessTokenView'];
export type TokenScope = AccessToken['scope'];
export type TokenWish = Schemas['NewAccessToken'];
export type MadeToken = Schemas['MadeData'];

export type AuditEvent = Schemas['EventView'];
export type ForeignEvent = Schemas['AnybodysEventView'];
export type AuditFilter = { actorId?: string; action?: string };
export type ChainCheck = Schemas['VerificationView'];
type EventPage<T> = { events: T[]; nextBefore: number | null };

export type Person = Schemas['PersonView'];
export type PasswordLink = Schemas['LinkView'];
export type PersonWish = Schemas['NewUser'];
export type PersonWithLink = Schemas['PersonWithLink'];
export type OpenInvitation = Schemas['InvitationView'];

const PER_PAGE = 50;
/** A walk over a long log, or its file, takes its time. */
const AUDIT_DEADLINE_MS = 10 * 60_000;

/** Below `me` stands what events of the account make old. */
export const accountKeys = {
  signIns: [...keys.me, 'sign-ins'] as const,
  tokens: [...keys.me, 'tokens'] as const,
  activity: [...keys.me, 'activity'] as const,
  users: ['admin', 'users'] as const,
  invitations: ['admin', 'invitations'] as const,
  audit: (filter: AuditFilter) => ['admin', 'audit', filter] as const,
};

// ---- without a sign-in ---------------------------------------------------------------------

export async function verifyEmail(token: string): Promise<void> {
  await api.post('/api/auth/verify-email', { body: { token }, anonymous: true });
}

export async function requestPasswordReset(email: string): Promise<void> {
  await api.post('/api/auth/request-password-reset', { body: { email }, anonymous: true });
}

export async function resetPassword(body: {
  token: string;
  password: string;
  revokeTokens: boolean;
}): Promise<void> {
  await api.post('/api/auth/reset-password', { body, anonymous: true });
}

// ---- one's own account ---------------------------------------------------------------------

export function useResendVerification() {
  return useMutation({ mutationFn: () => api.post<unknown>('/api/auth/resend-verification') });
}

export function useChangePassword() {
  return useMutation({
    mutationFn: (body: { currentPassword: string; newPassword: string; revokeTokens: boolean }) =>
      api.post<unknown>('/api/auth/change-password', { body }),
  });
}

/** Where one is signed in, the one that was used last first. */
export function useSignIns() {
  return useQuery({
    queryKey: accountKeys.signIns,
    queryFn: async ({ signal }) =>
      (await api.get<{ data: { signIns: SignInLine[] } }>('/api/auth/sign-ins', { signal })).data.signIns,
  });
}

export function useEndSignIn() {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: (id: string) => api.delete<unknown>(at('/api/auth/sign-ins/{id}', id)),
    onSuccess: (_, id) =>
      queries.setQueryData<SignInLine[]>(accountKeys.signIns, (list) => list?.filter((one) => one.id !== id)),
    onSettled: () => queries.invalidateQueries({ queryKey: accountKeys.signIns }),
  });
}

export function useAccessTokens() {
  return useQuery({
    queryKey: accountKeys.tokens,
    queryFn: async ({ signal }) =>
      (await api.get<{ data: { tokens: AccessToken[] } }>('/api/auth/tokens', { signal })).data.tokens,
  });
}

/** Makes a token; the answer has its text, this once, and no copy of it is kept. */
export function useMakeAccessToken() {
  const queries = useQueryClient();
  return useMutation({
    gcTime: 0,
    mutationFn: async (body: TokenWish) =>
      (await api.post<{ data: MadeToken }>('/api/auth/tokens', { body })).data,
    onSettled: () => queries.invalidateQueries({ queryKey: accountKeys.tokens }),
  });
}

export function useRevokeAccessToken() {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: (id: string) => api.delete<unknown>(at('/api/auth/tokens/{id}', id)),
    onSuccess: (_, id) =>
      queries.setQueryData<AccessToken[]>(accountKeys.tokens, (list) => list?.filter((one) => one.id !== id)),
    onSettled: () => queries.invalidateQueries({ queryKey: accountKeys.tokens }),
  });
}

/** What one did, newest first. */
export function useActivity() {
  return useInfiniteQuery({
    queryKey: accountKeys.activity,
    initialPageParam: undefined as number | undefined,
    queryFn: ({ signal, pageParam }) =>
      api.get<EventPage<AuditEvent>>('/api/audit', {
        query: { limit: PER_PAGE, before: pageParam },
        signal,
      }),
    getNextPageParam: (last) => last.nextBefore ?? undefined,
  });
}

// ---- administration ------------------------------------------------------------------------

export function useUsers() {
  return useInfiniteQuery({
    queryKey: accountKeys.users,
    initialPageParam: undefined as string | undefined,
    queryFn: ({ signal, pageParam }) =>
      api.get<{ users: Person[]; next: string | null }>('/api/admin/users', {
        query: { limit: PER_PAGE, after: pageParam },
        signal,
      }),
    getNextPageParam: (last) => last.next ?? undefined,
  });
}

export function useAddUser() {
  const queries = useQueryClient();
  return useMutation({
    gcTime: 0,
    mutationFn: (body: PersonWish) => api.post<PersonWithLink>('/api/admin/users', { body }),
    onSettled: () => queries.invalidateQueries({ queryKey: accountKeys.users }),
  });
}

export function useSwitchUser() {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: ({ id, on }: { id: string; on: boolean }) =>
      api.post<Person>(at(`/api/admin/users/{id}/${on ? 'enable' : 'disable'}`, id)),
    onSettled: () => queries.invalidateQueries({ queryKey: accountKeys.users }),
  });
}

export function useVoidPassword() {
  const queries = useQueryClient();
  return useMutation({
    gcTime: 0,
    mutationFn: (id: string) => api.post<PersonWithLink>(at('/api/admin/users/{id}/reset-password', id)),
    onSettled: () => queries.invalidateQueries({ queryKey: accountKeys.users }),
  });
}

export function useInvitations() {
  return useQuery({
    queryKey: accountKeys.invitations,
    queryFn: async ({ signal }) =>
      (await api.get<{ invitations: OpenInvitation[] }>('/api/admin/invitations', { signal })).invitations,
  });
}

export function useInvite() {
  const queries = useQueryClient();
  return useMutation({
    gcTime: 0,
    mutationFn: async (email: string) =>
      (
        await api.post<{ data: Invitation }>('/api/auth/invitations', {
          body: email === '' ? {} : { email },
        })
      ).data,
    onSettled: () => queries.invalidateQueries({ queryKey: accountKeys.invitations }),
  });
}

export function useRevokeInvitation() {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: (id: string) => api.delete<unknown>(at('/api/admin/invitations/{id}', id)),
    onSuccess: (_, id) =>
      queries.setQueryData<OpenInvitation[]>(accountKeys.invitations, (list) =>
        list?.filter((one) => one.id !== id),
      ),
    onSettled: () => queries.invalidateQueries({ queryKey: accountKeys.invitations }),
  });
}

/** What everybody did, newest first; of one person, or one kind of deed, where it is asked for. */
export function useAuditLog(filter: AuditFilter) {
  return useInfiniteQuery({
    queryKey: accountKeys.audit(filter),
    initialPageParam: undefined as number | undefined,
    queryFn: ({ signal, pageParam }) =>
      api.get<EventPage<ForeignEvent>>('/api/admin/audit', {
        query: { limit: PER_PAGE, before: pageParam, ...filter },
        signal,
      }),
    getNextPageParam: (last) => last.nextBefore ?? undefined,
  });
}

export function useCheckChain() {
  return useMutation({
    mutationFn: () => api.get<ChainCheck>('/api/admin/audit/verify', { deadlineMs: AUDIT_DEADLINE_MS }),
  });
}

/** Reads the whole log as a file of lines of JSON. */
export async function auditFile(): Promise<Blob> {
  const answer = await api.open('GET', '/api/admin/audit/export', {
    headers: { Accept: '*/*' },
    deadlineMs: AUDIT_DEADLINE_MS,
  });
  return await answer.blob();
}
