import { useMutation } from '@tanstack/react-query';
import { LogOut, Monitor, Smartphone } from 'lucide-react';
import { useState } from 'react';
import { useEndSignIn, useSignIns, type SignInLine } from '@/api/account';
import { api } from '@/api/client';
import { Section } from '@/app/page';
import { logout, signedOutBecause } from '@/auth/session';
import { Badge } from '@/ui/badge';
import { Button } from '@/ui/button';
import { ConfirmDialog } from '@/ui/dialog';
import { ErrorNote, ErrorState } from '@/ui/error-state';
import { Card, List, ListRow } from '@/ui/list';
import { SkeletonRows } from '@/ui/skeleton';
import { Ago } from '@/ui/time';
import { toast } from '@/ui/toast';
import { SettingsPage } from '../settings/frame';
import { deviceName, onPhone } from './device';

export function SignInSettings() {
  const signIns = useSignIns();
  const [ending, setEnding] = useState<SignInLine>();
  return (
    <SettingsPage
      title="Sign-ins"
      lead="A sign-in lives in one browser or one command line. Your sessions and terminals go on without it."
    >
      <Section title="Where you are signed in">
        {signIns.isPending && <SkeletonRows rows={3} label="Loading your sign-ins" />}
        {signIns.isError && signIns.data === undefined && (
          <ErrorState
            title="Your sign-ins could not be read"
            error={signIns.error}
            busy={signIns.isFetching}
            onRetry={() => void signIns.refetch()}
          />
        )}
        {signIns.data !== undefined && (
          <List aria-label="Where you are signed in">
            {signIns.data.map((one) => (
              <SignInRow key={one.id} signIn={one} onEnd={() => setEnding(one)} />
            ))}
          </List>
        )}
      </Section>
      <Everywhere />
      {ending && <EndSignIn signIn={ending} onClose={() => setEnding(undefined)} />}
    </SettingsPage>
  );
}

function SignInRow({ signIn, onEnd }: { signIn: SignInLine; onEnd: () => void }) {
  const name = deviceName(signIn.device);
  const Icon = onPhone(signIn.device) ? Smartphone : Monitor;
  return (
    <ListRow className="items-start py-3">
      <Icon aria-hidden className="mt-0.5 size-4 shrink-0 text-fg-3" />
      <div className="min-w-0 flex-1">
        <p className="flex flex-wrap items-center gap-x-2 gap-y-1 text-base font-medium">
          <span title={signIn.device ?? undefined} className="min-w-0 truncate">
            {name}
          </span>
          {signIn.current && <Badge tone="ok">this one</Badge>}
        </p>
        <p className="mt-0.5 flex flex-wrap gap-x-3 text-sm text-fg-3">
          {signIn.address !== null && <span>from {signIn.address}</span>}
          <span>
            Used <Ago at={signIn.lastUsedAt} />
          </span>
          <span>
            Since <Ago at={signIn.createdAt} />
          </span>
        </p>
      </div>
      {signIn.current ? (
        <Button icon={LogOut} onClick={logout}>
          Sign out here
        </Button>
      ) : (
        <Button variant="danger-ghost" aria-label={`Sign out: ${name}`} onClick={onEnd}>
          Sign out
        </Button>
      )}
    </ListRow>
  );
}

function EndSignIn({ signIn, onClose }: { signIn: SignInLine; onClose: () => void }) {
  const end = useEndSignIn();
  const name = deviceName(signIn.device);
  return (
    <ConfirmDialog
      open
      onOpenChange={(open) => {
        if (!open) onClose();
      }}
      title={`Sign out ${name}?`}
      action="Sign out"
      busy={end.isPending}
      onConfirm={() =>
        end.mutate(signIn.id, {
          onSuccess: () => {
            toast.ok(`${name} is signed out`);
            onClose();
          },
        })
      }
    >
      <p>
        It has to sign in again, and its terminals close within seconds. What runs in them goes on. If you do
        not know it, change your password too.
      </p>
      {end.isError && <ErrorNote error={end.error} />}
    </ConfirmDialog>
  );
}

function Everywhere() {
  const [asking, setAsking] = useState(false);
  const everywhere = useMutation({
    mutationFn: () => api.post<unknown>('/api/auth/logout-all'),
    onSuccess: () => signedOutBecause('You are signed out everywhere.'),
  });
  return (
    <Section title="Everywhere">
      <Card className="flex flex-wrap items-center justify-between gap-3 p-4">
        <p className="max-w-md text-sm text-fg-2">
          Ends every sign-in of yours, this one too, and closes the terminals that they have open. Do this
          when a device is lost.
        </p>
        <Button variant="danger" icon={LogOut} onClick={() => setAsking(true)}>
          Sign out everywhere
        </Button>
      </Card>
      <ConfirmDialog
        open={asking}
        onOpenChange={setAsking}
        title="Sign out everywhere?"
        action="Sign out everywhere"
        busy={everywhere.isPending}
        onConfirm={() => everywhere.mutate()}
      >
        <p>
          You will have to sign in again here and on all other devices. What runs in your environments goes
          on.
        </p>
        {everywhere.isError && <ErrorNote error={everywhere.error} />}
      </ConfirmDialog>
    </Section>
  );
}
